"""The hot loops on NVIDIA cards: `.cu` files beside this one, and how their work is cut."""
