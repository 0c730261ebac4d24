"""The hot loops. Kernels know arrays and integers only; nothing is validated here."""
