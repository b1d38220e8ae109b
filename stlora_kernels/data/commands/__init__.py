"""The sub-commands of ``python -m stlora_kernels.data``, one file each."""
