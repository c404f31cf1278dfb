"""Provisioning and operation: keys, certificates, processes."""
