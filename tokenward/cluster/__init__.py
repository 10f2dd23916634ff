"""What `tokenward doctor --cluster` looks at: objects of a cluster, read with kubectl."""
