"""The distributed step: devices, workers, collectives, and what makes any number of replicas one device."""
