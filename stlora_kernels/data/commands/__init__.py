"""The sub-commands of ``python -m stlora_kernels.data``, a file each: a dataclass of options and ``run(options)``."""
