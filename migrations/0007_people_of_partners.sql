-- The page of a partner's people keeps its index under a condition that only the page states. Under the old one it
-- could be taken for the look for one person as well, and PostgreSQL did so where a partner was newer than its
-- statistics: it read all of the partner's people.
DROP INDEX users_of_partner;
CREATE INDEX users_of_partner ON users (realm, created_at, id) WHERE length(external_id) > 0;
