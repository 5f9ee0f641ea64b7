"""For programs that run a few times: half the compiler's time.

Not for tests of numbers against the original: those are of what users run.
"""

OPTIONS: dict[str, str | bool] = {
  'xla_backend_optimization_level': '0',
  'xla_llvm_disable_expensive_passes': True,
}
# The same for another process.
XLA_FLAGS = ' '.join(f'--{name}={value}' for name, value in OPTIONS.items())
