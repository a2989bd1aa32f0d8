"""Bytes on disk or from the net, whatever they mean."""
