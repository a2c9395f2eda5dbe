"""What a vault of secure multi-party decoding does beside attention: noise on its replies, an audit of its queries."""
