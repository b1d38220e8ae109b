"""Modules: the node-adaptive low-rank layer and what ST-LoRA builds from it."""
