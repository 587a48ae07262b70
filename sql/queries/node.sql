-- name: register
-- $1 name · $2 version · $3 process id · $4 lease, milliseconds
insert into rowbeat.node (name, version, process_id, started_at, heartbeat_at, lease)
select $1, $2, $3, n.now, n.now, $4::bigint * interval '1 millisecond' from (select rowbeat.now_() as now) n
returning id

-- name: heartbeat
-- $1 node. Returns a row while the others still count on it, and whether the server accepts writes.
update rowbeat.node n set heartbeat_at = rowbeat.now_() where n.id = $1 and n.lost_at is null and n.stopped_at is null
returning n.id

-- name: stop
-- $1 node
update rowbeat.node n set stopped_at = rowbeat.now_() where n.id = $1 and n.lost_at is null

-- name: status
select rowbeat.status() as status

-- name: readiness
-- Schema version, and whether this session may write.
select (select coalesce(max(h.version), 0)::integer from rowbeat.schema_history h) as version,
    not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as writable

-- name: check
-- What `rowbeat check` wants to know of the server and the session.
select current_setting('server_version_num')::integer as version_num, 'PostgreSQL ' || current_setting('server_version') as version,
    (select s.version || ' ' || s.cipher from pg_stat_ssl s where s.pid = pg_backend_pid() and s.ssl) as tls,
    not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as writable,
    current_user::text as user_name,
    coalesce((select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'rowbeat'),
        has_database_privilege(current_database(), 'create')) as may_install
