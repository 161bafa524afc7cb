"""The pipeline of the specification: collectors feed a manager, the manager feeds reporters."""
