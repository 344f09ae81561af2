-- The pages of a partner's people have an index under a condition that only they state. The one that they had could be
-- taken for the look for one person as well, and PostgreSQL did so where a partner was newer than its statistics: it
-- read all of the partner's people.
CREATE INDEX users_by_partner ON users (realm, created_at, id) WHERE length(external_id) > 0;
