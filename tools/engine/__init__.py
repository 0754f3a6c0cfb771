"""Modules that several commands share. This package itself imports nothing; torch and mmcv come with its modules."""
