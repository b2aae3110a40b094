"""Triton's autotuner, for a machine with many cores and little time: it compiles a kernel's configurations one after another, and tries each
for a tenth of a second.

`compile_all()` makes each kernel compile its configurations in threads and run in the first that launches, which fills the cache on disk;
`try_briefly()` makes a later process, which finds them there, choose among them in a fifth of the time.
"""
from concurrent.futures import ThreadPoolExecutor

import triton
from triton.runtime.autotuner import Autotuner


def compile_all(threads, first=0, step=1, most=None):
    """Of each kernel, of every `step`-th configuration from `first` on at most so many."""
    from triton.runtime._async_compile import AsyncCompileMode

    chosen = {}

    def run(self, *args, **kwargs):
        self.nargs = dict(zip(self.arg_names, args))
        key = (id(self), tuple(str(kwargs.get(name, self.nargs.get(name))) for name in self.keys))
        configurations = self.prune_configs(kwargs)
        configurations = (configurations[first::step] or configurations[:1])[:most]
        if key not in chosen:
            meta = {name: value for name, value in kwargs.items() if name != "warmup"}
            with ThreadPoolExecutor(threads) as pool, AsyncCompileMode(pool, ignore_errors=True):
                for configuration in configurations:
                    self.fn.warmup(*args, **meta, **configuration.all_kwargs())
            chosen[key] = 0
        while True:
            configuration = configurations[chosen[key]]
            try:
                if configuration.pre_hook is not None:
                    configuration.pre_hook({**self.nargs, **kwargs, **configuration.all_kwargs()})
                return self.fn.run(*args, **kwargs, **configuration.all_kwargs())
            except triton.runtime.errors.OutOfResources:
                chosen[key] += 1
                if chosen[key] == len(configurations):
                    raise

    Autotuner.run = run


def try_briefly():
    Autotuner.do_bench = property(
        lambda self: lambda call, quantiles: triton.testing.do_bench(call, warmup=5, rep=20, quantiles=quantiles))
