-- name: register
-- $1 name · $2 version · $3 process id · $4 lease, milliseconds · $5 what its locked file says, or null · $6 its queues
select rowbeat.register_node($1, $2, $3, $4::bigint * interval '1 millisecond', $5, $6) as id

-- name: take_over
-- $1 node · $2 what its locked file says
select rowbeat.take_over($1, $2) as rescued

-- name: heartbeat
-- $1 node · $2 definitions it cannot perform · $3 tasks it ended per second. A row while the others still count on it.
select b.lost, b.isolated from rowbeat.beat($1, $2, $3) b

-- name: present
-- The session lock that shows the node connected. $1 node
select pg_try_advisory_lock_shared(1919907683, $1::bigint::integer)

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
