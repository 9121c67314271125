"""3D language fields: photos to Gaussians to sparse codes to text queries."""
