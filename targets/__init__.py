"""The lower floor: contract, registry, hardware, devices, back ends."""
