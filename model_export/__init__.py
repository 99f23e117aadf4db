"""The program that makes the model file: train, analyse, fold, export, verify, publish."""
