"""From audio to what is trained on: the frozen front ends, their features on disk, and batches of them."""
