"""Engines that bitwren is measured against, a file each."""
