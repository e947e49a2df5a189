"""Provenance and reruns as tables for the terminal; the views are in report/views/."""
