"""The verifier of bundles: scripts that run where this package and Keras are barred, started by `eet verify`."""
