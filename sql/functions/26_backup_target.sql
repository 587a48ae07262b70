-- Targets of the backup: another database that has the same tables for images. Files are written by the daemon alone, see src/backup/folder.rs.
--
-- A target knows its own position, the newest number in it, so that it moves with the images or not at all. Whoever reads the source reads
-- along (number, image): transactions follow each other whole.

-- Promises: the number of the last transaction in this target of that source; until the caller's transaction ends nobody else writes to it.
-- Called by: daemons, in the target. Locks: the setting backup_of. SQLSTATEs: RB005 (the target of another source, or itself one with backups).
create or replace function rowbeat.open_target(p_source jsonb) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
    v_source  jsonb;
begin
    if exists (select from rowbeat.backup) or p_source = rowbeat.fingerprint() then
        raise exception 'this database has backups of its own' using errcode = 'RB005', hint = 'A target is a database for nothing else.';
    end if;
    insert into rowbeat.setting (name, value, changed_at) values ('backup_of', p_source, rowbeat.now_()) on conflict (name) do nothing;
    select s.value into v_source from rowbeat.setting s where s.name = 'backup_of' for update;
    if v_source <> p_source then
        raise exception 'this database has the backup of another source' using errcode = 'RB005',
            hint = 'Numbers of transactions belong to one source: take another database for this one.';
    end if;
    return (select coalesce(max(t.number), 0) from rowbeat.backup_transaction t);
end $$;
comment on function rowbeat.open_target(jsonb) is 'Opens this database as a target of a backup; returns how far it is.';

-- Promises: the images are in this target; those that are there already stay. Called by: daemons, in the target, after open_target.
create or replace function rowbeat.receive_images(p_images jsonb) returns void
language sql volatile set search_path = '' as $$
    with image as materialized (
        select i.* from jsonb_to_recordset(p_images) i (number bigint, transaction bigint, xid text, transaction_at timestamptz, images bigint, login_role text,
            image bigint, source integer, backup text, table_name text, schema_name name, key jsonb, operation text, "row" jsonb, at timestamptz, actor text)
    ), source as (
        insert into rowbeat.backup_source (id, name, table_name, schema_name) overriding system value
        select distinct i.source, i.backup, i.table_name, i.schema_name from image i
        on conflict (id) do update set name = excluded.name, table_name = excluded.table_name, schema_name = excluded.schema_name
    ), transaction as (
        insert into rowbeat.backup_transaction (id, number, xid, last_seq, at, images, login_role) overriding system value
        select distinct i.transaction, i.number, i.xid::xid8, 0, i.transaction_at, i.images, i.login_role from image i
        on conflict (id) do nothing
    )
    insert into rowbeat.backup_image (id, source, key, operation, row, transaction, at, actor) overriding system value
    select i.image, i.source, i.key, i.operation, i.row, i.transaction, i.at, i.actor from image i
    on conflict do nothing
$$;
comment on function rowbeat.receive_images(jsonb) is 'Takes images from their source.';

-- Promises: what a daemon knows of its target can be read here. Called by: daemons, when something changed and now and then.
create or replace function rowbeat.report_target(p_name text, p_kind text, p_position bigint, p_error text, p_node text) returns void
language sql volatile set search_path = '' as $$
    insert into rowbeat.backup_target as t (name, kind, position, written_at, error, error_at, node)
    values (p_name, p_kind, coalesce(p_position, 0), case when p_error is null then rowbeat.now_() end, p_error, case when p_error is not null then rowbeat.now_() end, p_node)
    on conflict (name) do update
    set kind = excluded.kind, position = coalesce(p_position, t.position), written_at = coalesce(excluded.written_at, t.written_at), error = excluded.error,
        error_at = case when excluded.error is not null then coalesce(t.error_at, excluded.error_at) end, node = excluded.node
$$;
comment on function rowbeat.report_target(text, text, bigint, text, text) is 'Notes how far a target is, or what it fails with.';

-- How many images each backup has up to a transaction, and a sum over all of them: source and target can be compared by it.
create or replace function rowbeat.digest_images(p_number bigint) returns table (backup text, images bigint, digest text)
language sql stable set search_path = '' as $$
    select h.backup, count(*), sum(hashtextextended(concat_ws(' ', h.image, h.key, h.operation, h.row, h.actor), h.transaction))::text
    from rowbeat.backup_history h where h.transaction <= p_number group by h.backup
$$;
comment on function rowbeat.digest_images(bigint) is 'A sum over the images of each backup up to a transaction.';
