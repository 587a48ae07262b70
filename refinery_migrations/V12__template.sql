-- Templates of one page: a page's template may extend and include others, so an endpoint's answer comes with all of them.
--
-- The function returns another row type than before: it goes here and is made anew with the functions. Locks: nothing that waits.

drop function if exists rowbeat.serve_endpoint(text, text, jsonb, bytea[], bytea, boolean);
