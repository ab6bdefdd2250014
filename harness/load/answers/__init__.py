"""How the bytes of an answer become the `Ended` entry of an operation. No I/O."""
