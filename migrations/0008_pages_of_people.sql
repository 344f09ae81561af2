-- In a transaction of its own: it needs the table for itself, for a moment. The release before lists without it.
DROP INDEX users_of_partner;
