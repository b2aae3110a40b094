"""What a function may change of its process, and what the next call is to find as it was: floating-point mode (rounding, subnormals
flushed), working folder, environment, locale, signal mask, limits, depth of recursion, how NumPy takes an overflow, and of PyTorch its
default type, gradient mode, threads and precision of products. What is left of it, threads that go on or modules that were changed, is
for a process of its own."""
import ctypes
import locale
import os
import resource
import signal
import sys

_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class FloatingPointMode:
    """Of the thread that calls; where the C library tells it."""

    def __init__(self):
        self._library, self._mode = None, (ctypes.c_char * 256)()
        try:
            self._library = ctypes.CDLL("libm.so.6")
            self._library.fegetenv(self._mode)
        except (OSError, AttributeError):
            self._library = None

    def restore(self):
        if self._library:
            self._library.fesetenv(self._mode)


def _of_torch():
    """(read, write) for each setting that this PyTorch has."""
    torch = sys.modules.get("torch")
    pairs = [] if torch is None else [
        ("get_default_dtype", "set_default_dtype"), ("is_grad_enabled", "set_grad_enabled"), ("get_num_threads", "set_num_threads"),
        ("get_float32_matmul_precision", "set_float32_matmul_precision"), ("are_deterministic_algorithms_enabled", "use_deterministic_algorithms")]
    return [(getattr(torch, read), getattr(torch, write)) for read, write in pairs if hasattr(torch, read) and hasattr(torch, write)]


class Settings:
    """As they are when this is made, but for the floating-point mode: that is taken before anything foreign is imported."""

    def __init__(self, mode: FloatingPointMode):
        self._mode, self._folder, self._environment = mode, os.getcwd(), dict(os.environ)
        self._locale, self._mask = locale.setlocale(locale.LC_ALL), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._limits = [(one, resource.getrlimit(one)) for one in _LIMITS]
        import numpy  # here: it may be missing, which is for the answer to hello to say

        self._recursion, self._numpy = sys.getrecursionlimit(), numpy
        self._trouble = numpy.geterr()
        self._torch = [(read, write, read()) for read, write in _of_torch()]

    def restore(self):
        self._mode.restore()
        if os.environ != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        os.chdir(self._folder)
        sys.setrecursionlimit(self._recursion)
        self._numpy.seterr(**self._trouble)
        for one, limit in self._limits:
            if resource.getrlimit(one) != limit:
                try:
                    resource.setrlimit(one, limit)
                except (OSError, ValueError):  # a hard limit that was lowered stays so
                    pass
        for read, write, value in self._torch:
            if read() != value:
                write(value)
