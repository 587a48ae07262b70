-- Backups: a consumer of the change log that keeps what it reads. Restoring is in 24_restore.sql, comparing in 25_verify.sql.
--
-- Images and the consumer's position are written in one transaction under the consumer's row lock, so each change is kept exactly once.
-- Whoever writes images holds that lock: their numbers and those of transactions are in the order of commits, and can serve as positions. It is
-- taken before rows of rowbeat.backup and before locks on tables.
--
-- Who may: plugins see the images of tables in their own schema, by the views; everybody else who may use the schema at all sees
-- what the views of rowbeat show him.

-- Promises: every committed change of the table is kept from now on, and the baseline is begun (p_again: anew). Returns the backup's name.
--   Safe to repeat. A dropped and re-created table takes the place of its namesake. Called by: operators.
-- Locks and SQLSTATEs: as the insert, see triggers/backup.sql.
create or replace function rowbeat.enable_backup(p_table regclass, p_name text default null, p_again boolean default false) returns text
language plpgsql volatile set search_path = '' as $$
declare
    v_name  text := coalesce(p_name, (select b.name from rowbeat.backup b where b.table_name = p_table), rowbeat.table_name(p_table));
begin
    perform from rowbeat.change_consumer c where c.name = 'backup' for update;
    insert into rowbeat.backup as b (name, table_name) values (v_name, p_table)
    on conflict (name) do update
    set table_name = excluded.table_name, enabled = true,
        baselined_at = case when p_again or not b.enabled or b.table_name <> excluded.table_name then null else b.baselined_at end,
        baseline_key = case when not p_again then b.baseline_key end,
        broken = case when not p_again then b.broken end;
    return v_name;
end $$;
comment on function rowbeat.enable_backup(regclass, text, boolean) is 'Keeps every committed change of a table; returns the backup''s name.';

-- Promises: changes are not kept any more; the images stay, also when the backup is enabled again. False: there is none of that name.
create or replace function rowbeat.disable_backup(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    perform from rowbeat.change_consumer c where c.name = 'backup' for update;
    update rowbeat.backup b set enabled = false where b.name = p_name;
    return found;
end $$;
comment on function rowbeat.disable_backup(text) is 'Ends a backup; its images stay.';

-- Promises: the backup and all its images are gone; further targets keep theirs. False: there was nothing of that name. Called by: operators, the
--   removal of plugins. Transactions stay: they are what targets know.
create or replace function rowbeat.forget_backup(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
declare
    v_source  integer := (select s.id from rowbeat.backup_source s where s.name = p_name);
begin
    perform from rowbeat.change_consumer c where c.name = 'backup' for update;
    delete from rowbeat.backup b where b.source = v_source;
    delete from rowbeat.backup_image i where i.source = v_source;
    delete from rowbeat.backup_source s where s.id = v_source;
    return found;
end $$;
comment on function rowbeat.forget_backup(text) is 'Removes a backup with its images; false when there is none of that name.';

-- Promises: the next piece of what became visible since the consumer's position is kept. read: how many changes; complete: there was no more.
--   complete is null when somebody else has the consumer.
-- How: a row whose change was a restore gets an image only when that is another content than it had, since the image is there already. A
--   transaction gets its number when all of it has been read, in the order of the last changes: what depends on another came after it.
-- Called by: every daemon's backup loop, rowbeat.catch_up. Locks: the consumer's row (p_wait: waits for it).
create or replace function rowbeat.back_up(p_limit integer default 1000, p_wait boolean default false, out read integer, out complete boolean)
language plpgsql volatile set search_path = '' as $$
declare
    v_piece  record;
    v_open   boolean;
begin
    read := 0;
    if not exists (select from rowbeat.change_consumer c where c.name = 'backup') then
        complete := true;
        return;
    end if;
    select * into v_piece from rowbeat.read_changes('backup', p_limit, p_wait);
    complete := v_piece.complete;
    if complete is null then
        return;
    end if;
    read := cardinality(v_piece.seqs);
    v_open := exists (select from rowbeat.backup_transaction t where t.number is null);
    if read > 0 then
        perform rowbeat.keep_images(v_piece.seqs, v_piece.slots, complete and not v_open);
    end if;
    if complete and v_open then
        update rowbeat.backup_transaction t set number = n.number
        from (select o.id, nextval('rowbeat.backup_number') as number
            from (select t.id from rowbeat.backup_transaction t where t.number is null order by t.last_seq) o) n
        where t.id = n.id;
    end if;
    perform rowbeat.note_lost_place();
end $$;
comment on function rowbeat.back_up(integer, boolean) is 'Keeps the next piece of the change log; returns how many changes it read and whether that was all.';

-- What of a piece of the log concerns backups.
create or replace function rowbeat.changes_to_keep(p_seqs bigint[], p_slots smallint[])
returns table (source integer, seq bigint, xid xid8, operation text, key jsonb, "row" jsonb, at timestamptz, actor text, login_role text, origin text, error text)
language sql stable set search_path = '' as $$
    select b.source, c.seq, c.xid, c.operation, coalesce(rowbeat.live_key(c), '{}'), coalesce(c.new, c.old), c.at, c.actor, c.login_role, c.origin, c.error
    from rowbeat.change c
    join rowbeat.backup b on b.table_name = c.table_name
    where c.seq = any (p_seqs) and c.slot = any (p_slots)
$$;
comment on function rowbeat.changes_to_keep(bigint[], smallint[]) is 'Those of the changes that backups keep.';

-- The rows of a piece that a restore gave the content which they had in the backup already.
create or replace function rowbeat.restored_as_kept(p_seqs bigint[], p_slots smallint[]) returns bigint[]
language sql stable set search_path = '' as $$
    with piece as materialized (
        select k.*, lag(k.operation) over w as before, lag(k.row) over w as row_before
        from rowbeat.changes_to_keep(p_seqs, p_slots) k
        window w as (partition by k.source, k.key order by k.seq)
    )
    select array(
        select p.seq from piece p
        left join lateral (
            select i.operation, i.row from rowbeat.backup_image i
            where p.before is null and i.source = p.source and i.key_hash = jsonb_hash_extended(p.key, 0) and i.key = p.key
            order by i.id desc limit 1
        ) i on true
        where p.origin = 'restore' and p.operation in ('INSERT', 'UPDATE') and coalesce(p.before, i.operation) <> 'DELETE'
            and p.row = coalesce(p.row_before, i.row))
$$;
comment on function rowbeat.restored_as_kept(bigint[], smallint[]) is 'Changes by which a restore brought back what the newest image says.';

-- Promises: the images of a piece are written, and what could not be captured is noted. p_whole: its transactions are complete.
-- Called by: back_up, which has the consumer's lock.
create or replace function rowbeat.keep_images(p_seqs bigint[], p_slots smallint[], p_whole boolean) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_known  bigint[] := '{}';
begin
    if exists (select from rowbeat.change c where c.seq = any (p_seqs) and c.slot = any (p_slots) and c.origin = 'restore') then
        v_known := rowbeat.restored_as_kept(p_seqs, p_slots);
    end if;
    with piece as materialized (
        select k.* from rowbeat.changes_to_keep(p_seqs, p_slots) k where k.seq <> all (v_known)
    ), broken as (
        update rowbeat.backup b set broken_at = coalesce(b.broken_at, u.at), broken = coalesce(b.broken, u.why)
        from (select p.source, min(p.at) as at, min(coalesce('rows could not be captured: ' || p.error, 'the table has no primary key any more')) as why
            from piece p where p.error is not null or p.key = '{}' and p.operation <> 'TRUNCATE' group by p.source) u
        where b.source = u.source
    ), image as (
        select p.* from piece p where p.operation = 'TRUNCATE' or p.key <> '{}' and p.row is not null
    ), transaction as (
        insert into rowbeat.backup_transaction as t (number, xid, last_seq, at, images, login_role)
        select case when p_whole then nextval('rowbeat.backup_number') end, g.*
        from (select i.xid, max(i.seq) as last_seq, max(i.at), count(*), min(i.login_role) from image i group by i.xid order by last_seq) g
        on conflict (xid) where number is null do update
        set last_seq = excluded.last_seq, at = greatest(t.at, excluded.at), images = t.images + excluded.images
        returning t.id, t.xid
    )
    insert into rowbeat.backup_image (source, key, operation, row, transaction, at, actor)
    select i.source, i.key, case when i.origin = 'restore' and i.operation in ('INSERT', 'UPDATE') then 'RESTORE' else i.operation end,
        i.row, t.id, i.at, i.actor
    from image i join transaction t on t.xid = i.xid
    order by i.seq;
end $$;
comment on function rowbeat.keep_images(bigint[], smallint[], boolean) is 'Writes the images of a piece of the change log.';

-- Promises: when the log was emptied before it was read, every backup says so, and what comes later is kept all the same.
-- Called by: back_up, which has the consumer's lock.
create or replace function rowbeat.note_lost_place() returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_lost_at  timestamptz := (select c.lost_at from rowbeat.change_consumer c where c.name = 'backup');
begin
    if v_lost_at is not null then
        update rowbeat.backup b set broken_at = coalesce(b.broken_at, v_lost_at),
            broken = coalesce(b.broken, 'the change log was emptied before it was read');
        update rowbeat.change_consumer c set lost_at = null where c.name = 'backup';
    end if;
end $$;
comment on function rowbeat.note_lost_place() is 'Notes with the backups that the log lost changes of theirs.';

-- Promises: what had committed before the call is in the backup, in the caller's transaction; until that ends nobody else writes images.
-- Runs as its owner, for plugins and operators, not for everybody: who has the lock could keep it. Called by: restores, comparisons, exports. Locks: the consumer's row.
create or replace function rowbeat.catch_up() returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
    loop
        exit when (rowbeat.back_up(10000, true)).complete;
    end loop;
end $$;
comment on function rowbeat.catch_up() is 'Brings the backup up to date in the caller''s transaction.';
revoke execute on function rowbeat.catch_up() from public;

-- Promises: the next rows of a table, in the order of their keys, have images: those get one whose newest image says something else. Returns
--   how many rows it looked at; fewer than p_limit: the baseline is complete. Null: there is none to take.
-- How: with the consumer's lock, before the statement takes its snapshot. What the images say then is older than the snapshot; what the
--   snapshot sees and they do not yet will follow them; what it does not see, too. So nothing between baseline and first change is missed.
-- Called by: the daemons' backup loop, rowbeat backup enable. Locks: the consumer's row, the backup's.
create or replace function rowbeat.continue_baseline(p_name text, p_limit integer default 5000) returns integer
language plpgsql volatile set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set intervalstyle = 'postgres'
    set bytea_output = 'hex' set datestyle = 'ISO' as $$
declare
    v_backup  rowbeat.backup;
    v_keys    text[];
    v_read    integer;
    v_last    jsonb;
begin
    perform from rowbeat.change_consumer c where c.name = 'backup' for update;
    select * into v_backup from rowbeat.backup b where b.name = p_name and b.enabled and b.baselined_at is null for update;
    if not found then
        return null;
    end if;
    v_keys := rowbeat.key_columns(v_backup.table_name);
    execute format(
        'with batch as materialized (
             select to_jsonb(t.*) as image, row_number() over (order by %1$s) as n
             from %2$s t where $1 is null or (%1$s) > (select %1$s from jsonb_populate_record(null::%2$s, $1) t)
             order by %1$s limit $2
         ), other as (
             select b.image, rowbeat.pick_key(b.image, $3) as key, b.n from batch b
             left join lateral (
                 select i.operation, i.row from rowbeat.backup_image i
                 where i.source = $4 and i.key_hash = jsonb_hash_extended(rowbeat.pick_key(b.image, $3), 0) and i.key = rowbeat.pick_key(b.image, $3)
                 order by i.id desc limit 1
             ) i on true
             where i.operation is null or i.operation = ''DELETE'' or i.row <> b.image
         ), transaction as (
             insert into rowbeat.backup_transaction (number, xid, last_seq, at, images, login_role)
             select nextval(''rowbeat.backup_number''), pg_current_xact_id(), 0, rowbeat.now_(), count(*), session_user from other having count(*) > 0
             returning id, at
         ), made as (
             insert into rowbeat.backup_image (source, key, operation, row, transaction, at)
             select $4, o.key, ''BASELINE'', o.image, t.id, t.at from other o cross join transaction t order by o.n
         )
         select count(*), (select rowbeat.pick_key(b.image, $3) from batch b order by b.n desc limit 1) from batch',
        (select string_agg(format('t.%I', k), ', ' order by n) from unnest(v_keys) with ordinality x (k, n)), rowbeat.table_name(v_backup.table_name))
    into v_read, v_last using v_backup.baseline_key, p_limit, v_keys, v_backup.source;
    update rowbeat.backup b
    set baseline_key = case when v_read = p_limit then v_last end,
        baselined_at = case when v_read < p_limit then rowbeat.now_() end
    where b.name = p_name;
    return v_read;
end $$;
comment on function rowbeat.continue_baseline(text, integer) is 'Gives the next rows of a table their first images; returns how many it looked at.';

-- Whose images the caller may see: a plugin its own schema's.
create or replace view rowbeat.own_source as
select s.* from rowbeat.backup_source s
where s.schema_name = (select p.name from rowbeat.plugin p where p.role_name = current_user)
    or not exists (select from rowbeat.plugin p where p.role_name = current_user);
comment on view rowbeat.own_source is 'What there are images of; to a plugin those of its schema.';

create or replace view rowbeat.own_backup as
select b.* from rowbeat.backup b
where b.source in (select s.id from rowbeat.backup_source s
        where s.schema_name = (select p.name from rowbeat.plugin p where p.role_name = current_user))
    or not exists (select from rowbeat.plugin p where p.role_name = current_user);
comment on view rowbeat.own_backup is 'Backups; to a plugin those of its schema.';

-- The table of a backup, or its namesake when it was dropped; null: there is none by now.
create or replace function rowbeat.backup_table(p_backup text) returns regclass
language sql stable set search_path = '' as $$
    select coalesce((select b.table_name from rowbeat.own_backup b join pg_catalog.pg_class c on c.oid = b.table_name where b.name = p_backup),
        (select to_regclass(s.table_name) from rowbeat.own_source s where s.name = p_backup))
$$;
comment on function rowbeat.backup_table(text) is 'The table that images are of, if it is there.';

-- A key as the one text under which an export has the row: the value of a key with one column, else the whole key.
create or replace function rowbeat.key_text(p_key jsonb) returns text
language sql immutable parallel safe set search_path = '' as $$
    select case when (select count(*) from jsonb_object_keys(p_key)) = 1 then (select value from jsonb_each_text(p_key)) else p_key::text end
$$;
comment on function rowbeat.key_text(jsonb) is 'A key as one text.';

-- The columns of a table, with their types.
create or replace function rowbeat.described_columns(p_table regclass) returns text[]
language sql stable set search_path = '' as $$
    select coalesce(array_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)) order by a.attnum), '{}')
    from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
$$;
comment on function rowbeat.described_columns(regclass) is 'The columns of a table, with their types.';

create or replace view rowbeat.backup_history as
select s.name as backup, s.table_name, i.key, i.operation, i.row, i.at, i.actor, t.login_role, t.number as transaction, t.at as transaction_at,
    i.source, i.key_hash, i.id as image
from rowbeat.backup_image i
join rowbeat.backup_source s on s.id = i.source
join rowbeat.backup_transaction t on t.id = i.transaction and t.number is not null
where s.schema_name = (select p.name from rowbeat.plugin p where p.role_name = current_user)
    or not exists (select from rowbeat.plugin p where p.role_name = current_user);
comment on view rowbeat.backup_history is 'Every image of complete transactions; to a plugin those of its schema.';

-- The newest image of each key as of a time (null: now). Transactions count as a whole: when they wrote last.
-- Without a setting of its own: it is to become part of the statement that calls it, so that rows are not copied on the way.
create or replace function rowbeat.images_at(p_source integer, p_until timestamptz)
returns table (key jsonb, operation text, "row" jsonb, at timestamptz, by_whom text, image bigint)
language sql stable rows 1000000 as $$
    select distinct on (h.key_hash, h.key) h.key, h.operation, h.row, h.at, coalesce(h.actor, h.login_role), h.image
    from rowbeat.backup_history h
    where h.source = p_source and h.operation <> 'TRUNCATE' and (p_until is null or h.transaction_at <= p_until)
    order by h.key_hash, h.key, h.image desc
$$;
comment on function rowbeat.images_at(integer, timestamptz) is 'The newest image of each key as of a time.';

create or replace view rowbeat.backup_latest as
select s.name as backup, s.table_name, i.key, i.row, i.operation, i.at, i.by_whom
from rowbeat.own_source s cross join lateral rowbeat.images_at(s.id, null) i
where i.operation <> 'DELETE';
comment on view rowbeat.backup_latest is 'The newest image of each row that was not deleted.';

create or replace view rowbeat.backup_deleted as
select s.name as backup, s.table_name, i.key, i.row, i.at as deleted_at, i.by_whom as deleted_by
from rowbeat.own_source s cross join lateral rowbeat.images_at(s.id, null) i
where i.operation = 'DELETE';
comment on view rowbeat.backup_deleted is 'The delete section: the last image of each deleted row, when it was deleted and by whom.';

-- The backup as one document, of these backups (null: all) as of a time (null: now), as text:
--   {"tables": {backup: {key: {field: value}}}, "deleted": {backup: {key: {field: value, "deleted_at", "deleted_by"}}}}.
-- p_without is taken off the beginning of the backups' names. A column named deleted_at or deleted_by keeps its own value.
-- How: text, for jsonb would be built anew on each level. Called by: backup_document, plugins; `rowbeat backup export` writes the same, row by row.
create or replace function rowbeat.backup_text(p_backups text[] default null, p_until timestamptz default null, p_without text default '') returns text
language plpgsql volatile set search_path = '' as $$
begin
    perform rowbeat.catch_up();
    return (
        select format('{"tables": {%s}, "deleted": {%s}}', string_agg(format('%s: {%s}', n.name, d.there), ', '), string_agg(format('%s: {%s}', n.name, d.deleted), ', '))
        from rowbeat.own_source s
        cross join lateral (select to_json(case when starts_with(s.name, p_without) then substr(s.name, length(p_without) + 1) else s.name end)::text as name) n
        cross join lateral (
            select string_agg(to_json(rowbeat.key_text(i.key))::text || ': ' || i.row::text, ', ') filter (where i.operation <> 'DELETE') as there,
                string_agg(to_json(rowbeat.key_text(i.key))::text || ': ' || (jsonb_build_object('deleted_at', i.at, 'deleted_by', i.by_whom) || i.row)::text, ', ')
                    filter (where i.operation = 'DELETE') as deleted
            from rowbeat.images_at(s.id, p_until) i
        ) d
        where p_backups is null or s.name = any (p_backups));
end $$;
comment on function rowbeat.backup_text(text[], timestamptz, text) is 'The backup as the text of one JSON document: tables, and the delete section.';

create or replace function rowbeat.backup_document(p_backups text[] default null, p_until timestamptz default null) returns jsonb
language sql volatile set search_path = '' as $$
    select rowbeat.backup_text(p_backups, p_until)::jsonb
$$;
comment on function rowbeat.backup_document(text[], timestamptz) is 'The backup as one JSON document: tables, and the delete section.';
