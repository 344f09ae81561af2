-- What happened at a client. Most events are a person's alone and cost nothing here.
CREATE INDEX events_by_client ON events (client_id, at, id) WHERE client_id IS NOT NULL;
