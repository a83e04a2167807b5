//! placeholder for the node
/// One node.
#[derive(Debug)]
pub struct Node;
