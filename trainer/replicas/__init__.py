"""What the replicas do in the graph, so that their number changes nothing."""
