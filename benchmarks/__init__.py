"""How fast Kaizen is, and where its time goes."""
