-- The pages of a person's sessions come in the order of their ids.
CREATE INDEX sessions_of_user ON sessions (user_id, id);
