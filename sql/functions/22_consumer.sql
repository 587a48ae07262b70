-- Consumers of the change log besides the router. Each has a position of its own and holds the log back, up to a limit.
--
-- Who may: members of the consumer's role, who need no right on the log. A definer's function cannot know its caller, but a view shows the
-- caller's current_user: so own_consumer decides whose a consumer is, and its trigger, which runs as rowbeat's owner, reads the log for it.

-- Promises: the consumer exists as asked, from now on. Safe to repeat: a known one keeps its position. Called by: operators.
-- SQLSTATEs: 22023 (a name of the daemon's own), 42704 (no such role).
create or replace function rowbeat.create_consumer(p_name text, p_tables regclass[], p_role name default current_user) returns text
language plpgsql volatile set search_path = '' as $$
begin
    if p_name in ('router', 'backup') or p_tables is null or p_tables = '{}' then
        raise exception 'a consumer needs a name of its own and tables' using errcode = '22023';
    end if;
    insert into rowbeat.change_consumer (name, tables, role, position) values (p_name, p_tables, quote_ident(p_role)::regrole::text, pg_current_snapshot())
    on conflict (name) do update set tables = excluded.tables, role = excluded.role;
    return p_name;
end $$;
comment on function rowbeat.create_consumer(text, regclass[], name) is 'Creates a consumer of the changes of some tables, for the members of a role.';

-- Promises: the consumer is gone and holds nothing back. False: there was none. Called by: operators.
create or replace function rowbeat.drop_consumer(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    delete from rowbeat.change_consumer c where c.name = p_name and c.name not in ('router', 'backup');
    return found;
end $$;
comment on function rowbeat.drop_consumer(text) is 'Removes a consumer; false when there is none of that name.';

-- The consumers of the caller: of a plugin its own, also in the daemon's session. changes and rebased are empty; an update that sets
-- batch or rebased reads, or begins anew.
create or replace view rowbeat.own_consumer as
select c.name, null::integer as batch, null::pg_snapshot as rebased, null::rowbeat.change[] as changes
from rowbeat.change_consumer c
where c.name <> 'backup' and pg_has_role(current_user, coalesce(to_regrole(c.role),
    case when c.role is null then (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'rowbeat') end), 'MEMBER');
comment on view rowbeat.own_consumer is 'Consumers that the caller may use; see rowbeat.consume and rowbeat.rebase_consumer.';
grant select, update on rowbeat.own_consumer to public;

-- Promises: the consumer that the view shows has read its next changes, which are in the new row, or begins anew. Runs as its owner: the view has
--   decided whose consumer it is. Locks: the consumer's row, waiting for another session that reads with it.
-- SQLSTATEs: RB008 (it lost its place), 22023 (a snapshot of the future).
create or replace function rowbeat.use_own_consumer() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    v_piece  record;
    v_lost   timestamptz;
begin
    if new.rebased is not null then
        if pg_snapshot_xmax(new.rebased) > pg_snapshot_xmax(pg_current_snapshot()) then
            raise exception 'consumer "%" cannot begin at a snapshot of the future', old.name using errcode = '22023';
        end if;
        update rowbeat.change_consumer c
        set position = rowbeat.open_snapshot(new.rebased), target = null, after_seq = 0, read_at = rowbeat.now_(), since = null, lost_at = null, own_xid = pg_current_xact_id(),
            own_seq = coalesce((select max(o.seq) from rowbeat.change o where o.xid = pg_current_xact_id()), 0)
        where c.name = old.name;
        return new;
    end if;
    select * into v_piece from rowbeat.read_changes(old.name, new.batch, true);
    select c.lost_at into v_lost from rowbeat.change_consumer c where c.name = old.name;
    if v_lost is not null then
        raise exception 'consumer "%" lost its place: the log was emptied at % before it had read it', old.name, v_lost using errcode = 'RB008',
            hint = format('Copy the tables anew, after: select rowbeat.rebase_consumer(%L);', old.name);
    end if;
    new.changes := array(select c from rowbeat.change c where c.seq = any (v_piece.seqs) and c.slot = any (v_piece.slots) order by c.seq);
    return new;
end $$;
comment on function rowbeat.use_own_consumer() is 'Reads the log for a consumer, or lets it begin anew.';

create or replace trigger use_own_consumer instead of update on rowbeat.own_consumer
    for each row execute function rowbeat.use_own_consumer();

-- The refusal of who may not use a consumer. SQLSTATEs: 42501, always.
create or replace function rowbeat.refuse_stranger(p_consumer text) returns void
language plpgsql stable set search_path = '' as $$
begin
    raise exception 'there is no consumer "%" for %', p_consumer, current_user using errcode = 'insufficient_privilege',
        hint = 'rowbeat.create_consumer makes one, for the members of a role; a plugin declares its own.';
end $$;
comment on function rowbeat.refuse_stranger(text) is 'Refuses who may not use a consumer.';

-- Promises: the next changes of the consumer's tables, at most so many, in order of writing within what became visible together. They are
--   read with the caller's transaction: when it is rolled back they come again. No row: nothing now.
-- Called by: consumers. Locks: the consumer's row, waiting for another session that reads with it.
-- SQLSTATEs: RB008 (it lost its place), 42501.
create or replace function rowbeat.consume(p_consumer text, p_limit integer default 1000)
returns table (change bigint, transaction xid8, "table" text, operation text, key jsonb, old jsonb, new jsonb, login_role text, actor text,
    origin text, at timestamptz, error text)
language plpgsql volatile security invoker set search_path = '' as $$
declare
    v_changes  rowbeat.change[];
begin
    update rowbeat.own_consumer o set batch = p_limit where o.name = p_consumer returning o.changes into v_changes;
    if not found then
        perform rowbeat.refuse_stranger(p_consumer);
    end if;
    return query
    select c.seq, c.xid, c.table_name::text, c.operation, rowbeat.live_key(c), c.old, c.new, c.login_role, c.actor, c.origin, c.at, c.error
    from unnest(v_changes) c;
end $$;
comment on function rowbeat.consume(text, integer) is 'The next changes for a consumer; they are read when the caller''s transaction commits.';

-- Promises: the consumer goes on with what is not visible in a snapshot, and was not written in this transaction before; nothing else is read any more. The snapshot is that of the statement
--   which copies the tables: it says pg_current_snapshot() itself. Null: this statement's; then rebase and copy in the same repeatable-read transaction.
-- Called by: a consumer that begins anew. Also by operators, for the router, to take note of a loss.
-- Locks: the consumer's row. SQLSTATEs: 42501, 22023 (a snapshot of the future).
create or replace function rowbeat.rebase_consumer(p_consumer text, p_position pg_snapshot default null) returns void
language plpgsql volatile security invoker set search_path = '' as $$
begin
    update rowbeat.own_consumer o set rebased = coalesce(p_position, pg_current_snapshot()) where o.name = p_consumer;
    if not found then
        perform rowbeat.refuse_stranger(p_consumer);
    end if;
end $$;
comment on function rowbeat.rebase_consumer(text, pg_snapshot) is 'Lets a consumer begin anew, from now or from a snapshot on.';
