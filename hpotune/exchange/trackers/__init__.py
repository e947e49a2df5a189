"""Sends a study's trials to TensorBoard, MLflow or Weights & Biases, from the login node; each module one tracker."""
