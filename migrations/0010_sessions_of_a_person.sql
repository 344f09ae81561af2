-- In a transaction of its own: it needs the table for itself, for a moment. The release before goes by the new one.
DROP INDEX sessions_by_user;
