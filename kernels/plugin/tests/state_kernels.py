"""One function that changes whatever a function can of its process, and one that tells how it finds it."""
import ctypes
import locale
import os
import resource
import signal

import kdacheck
import numpy as np

try:
    import torch
except ImportError:
    torch = None

CONTRACT = "chunk=1 validates=no"
LIBRARY = ctypes.CDLL("libm.so.6")
UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(os.uname().machine, 0)


@kdacheck.kernel(CONTRACT, name="state.disturbs", framework="numpy")
def disturbs(q, k, v, g, beta, scale, initial_state, output_final_state):
    LIBRARY.fesetround(UPWARD)
    os.chdir("/")
    os.environ.clear()
    os.environ["KDACHECK_TEST_WORD"] = "left behind"
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    np.seterr(all="raise")
    if torch:
        torch.set_flush_denormal(True)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(torch.get_num_threads() + 1)
    raise NotImplementedError("disturbed")


@kdacheck.kernel(CONTRACT, name="state.describes", framework="numpy")
def describes(q, k, v, g, beta, scale, initial_state, output_final_state):
    tiny = np.float32(1e-30)
    words = [os.getcwd(), str(len(os.environ)), os.environ.get("KDACHECK_TEST_WORD"), locale.setlocale(locale.LC_ALL),
             str(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))), str(resource.getrlimit(resource.RLIMIT_FSIZE)),
             str(np.geterr()), str(LIBRARY.fegetround()), str(tiny * np.float32(1e-12) != 0)]
    if torch:
        words += [str(torch.get_default_dtype()), str(torch.is_grad_enabled()), str(torch.get_num_threads())]
    raise NotImplementedError(" ".join(str(word) for word in words))
