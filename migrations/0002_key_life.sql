-- How long the longest-lived token signed with a key may live, in milliseconds: a key that was replaced is published
-- until then. Absent for keys of before.
ALTER TABLE signing_keys ADD COLUMN longest_token BIGINT;
