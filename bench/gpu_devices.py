"""What the datasheets and programming guides of GPUs say, and what follows for a kernel."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    name: str
    architecture: str  # the number of sm_..., or AMD's name
    shared: int  # bytes a block may have
    shared_all: int  # bytes a multiprocessor has
    registers: int  # 32-bit ones a multiprocessor has
    threads: int  # a multiprocessor holds
    bandwidth: float  # TB/s
    multiprocessors: int
    tflops: dict[str, float]  # of dense products, by what is multiplied

    def occupancy(self, registers: int, threads: int, shared: int) -> float:
        """The share of a multiprocessor's threads that blocks of so many can be; 1 KiB each is the system's."""
        blocks = min(
            self.registers // (max(registers, 16) * threads),
            self.shared_all // (shared + 1024),
            self.threads // threads,
        )
        return blocks * threads / self.threads


_K = 1024
DEVICES = {
    d.architecture: d
    for d in (
        Device("A100", "80", 163 * _K, 164 * _K, 64 * _K, 2048, 2.04, 108, {"16": 312, "tf32": 156, "fp32": 19.5}),
        Device("RTX 3090", "86", 99 * _K, 100 * _K, 64 * _K, 1536, 0.94, 82, {"16": 71, "tf32": 35.6, "fp32": 35.6}),
        Device("RTX 4090", "89", 99 * _K, 100 * _K, 64 * _K, 1536, 1.01, 128, {"16": 165, "tf32": 82.6, "fp32": 82.6}),
        Device("H100", "90", 227 * _K, 228 * _K, 64 * _K, 2048, 3.35, 132, {"16": 989, "tf32": 495, "fp32": 66.9}),
        Device("B200", "100", 227 * _K, 228 * _K, 64 * _K, 2048, 8.0, 148, {"16": 2250, "tf32": 1100, "fp32": 75}),
        Device("RTX 5090", "120", 99 * _K, 100 * _K, 64 * _K, 1536, 1.79, 170, {"16": 210, "tf32": 105, "fp32": 105}),
        Device("MI300X", "gfx942", 64 * _K, 64 * _K, 128 * _K, 2048, 5.3, 304, {"16": 1307, "fp32": 163}),
    )
}
