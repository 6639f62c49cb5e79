"""Applications for the Zephyr RTOS around a compiled model, which is a Zephyr module by itself."""
