-- Nodes: registration, heartbeat, and whether this is the database that rowbeat was installed in.

-- Which database this is: the server's system identifier (null where asking is not allowed) and the database's oid.
create or replace function rowbeat.fingerprint() returns jsonb
language plpgsql stable set search_path = '' as $$
declare
    v_system  text;
begin
    begin
        select c.system_identifier::text into v_system from pg_catalog.pg_control_system() c;
    exception when insufficient_privilege then
        null;
    end;
    return jsonb_build_object('system_identifier', v_system,
        'oid', (select d.oid::bigint from pg_catalog.pg_database d where d.datname = current_database()));
end $$;
comment on function rowbeat.fingerprint() is 'Which database of which server this is: {"system_identifier", "oid"}.';

-- Promises: true, unless the schema came here by a dump, a clone or a template: then its tasks and schedules are another database's,
--   and nothing of it is started before somebody confirms. A standby that was promoted is the same database.
--   Security definer: readers of the view health may not see the settings.
create or replace function rowbeat.is_home() returns boolean
language sql stable security definer set search_path = '' as $$
    select coalesce((select s.value = rowbeat.fingerprint() from rowbeat.setting s where s.name = 'database'), true)
$$;
comment on function rowbeat.is_home() is 'Whether this is the database that rowbeat was installed in, or a confirmed copy.';

-- Promises: this database is home from now on. In what was a copy the change log is emptied: numbers of transactions mean nothing on another
--   server, so its readers begin anew, and those besides the router are told so. Called by: people, for a copy that is to work. Safe to repeat.
create or replace function rowbeat.confirm_database() returns void
language plpgsql volatile set search_path = '' as $$
begin
    if not rowbeat.is_home() then
        truncate rowbeat.change, rowbeat.change_group, rowbeat.watch_failure;
        update rowbeat.change_consumer c set position = pg_current_snapshot(), target = null, after_seq = 0, read_at = rowbeat.now_(), since = null,
            lost_at = case when c.name <> 'router' then rowbeat.now_() end;
    end if;
    insert into rowbeat.setting as s (name, value, changed_at) values ('database', rowbeat.fingerprint(), rowbeat.now_())
    on conflict (name) do update set value = excluded.value, changed_at = excluded.changed_at where s.value <> excluded.value;
end $$;
comment on function rowbeat.confirm_database() is 'Lets daemons work in a copy of the database, from now on.';

-- Promises: returns in a database that is home, refuses in a copy. Called by: register_node, claim, serve_endpoint. SQLSTATEs: RB007.
create or replace function rowbeat.refuse_copy() returns void
language plpgsql stable set search_path = '' as $$
begin
    if not rowbeat.is_home() then
        raise exception 'this database is a copy of the one that rowbeat was installed in' using errcode = 'RB007',
            hint = 'If it is to run its tasks and schedules too: select rowbeat.confirm_database();';
    end if;
end $$;
comment on function rowbeat.refuse_copy() is 'Refuses to work in an unconfirmed copy of the database, with RB007.';

-- Promises: a new incarnation, and its id. The first one in an installation notes which database it is; in a copy it is refused.
-- Called by: every daemon, when it starts and when the others gave it up. SQLSTATEs: RB007.
create or replace function rowbeat.register_node(
    p_name text, p_version text, p_process_id integer, p_lease interval, p_host_key text, p_queues text[]
) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_id  bigint;
begin
    perform rowbeat.refuse_copy();
    if not exists (select from rowbeat.setting s where s.name = 'database') then
        perform rowbeat.confirm_database();
    end if;
    insert into rowbeat.node (name, version, process_id, started_at, heartbeat_at, lease, host_key, queues)
    values (p_name, p_version, p_process_id, rowbeat.now_(), rowbeat.now_(), p_lease, p_host_key, p_queues)
    returning id into v_id;
    return v_id;
end $$;
comment on function rowbeat.register_node(text, text, integer, interval, text, text[]) is 'Registers a daemon that has started; returns its incarnation.';

-- Promises: the node's lease begins anew, and what it should know: whether there is anybody to rescue, and tasks that must run alone.
--   No row: the others gave it up, or the database is an unconfirmed copy by now.
-- Called by: every daemon, every few seconds; one statement, for idle daemons do little else. Locks: its node row.
create or replace function rowbeat.beat(p_node bigint, p_lacks text[], p_rate real) returns table (lost boolean, isolated boolean)
language plpgsql volatile set search_path = '' as $$
begin
    update rowbeat.node n set heartbeat_at = rowbeat.now_(), lacks = p_lacks, rate = p_rate
    where n.id = p_node and n.lost_at is null and n.stopped_at is null and rowbeat.is_home();
    if found then
        return query select
            exists (select from rowbeat.node o where o.kind = 'node' and o.stopped_at is null
                and o.lost_at is null and o.heartbeat_at < rowbeat.now_() - o.lease)
            or exists (select from rowbeat.task t where t.lease_until < rowbeat.now_()),
            exists (select from rowbeat.task t where t.parked = 'isolated' and t.state = 'waiting' and t.run_at <= rowbeat.now_());
    end if;
end $$;
comment on function rowbeat.beat(bigint, text[], real) is 'Renews a node''s lease; tells whether somebody is to be rescued and whether tasks must run alone.';
