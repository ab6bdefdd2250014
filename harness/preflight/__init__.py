"""What can be seen of a deployment before anything is judged, and what its operator should put right first."""
