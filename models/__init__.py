"""Networks that anypool knows, and the card that describes an exported one."""
