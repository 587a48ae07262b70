-- name: keep
-- $1 how many changes at most. baseline: a backup whose baseline is to be taken.
select k.read, (select min(b.name) from rowbeat.backup b join pg_catalog.pg_class c on c.oid = b.table_name where b.enabled and b.baselined_at is null) as baseline
from rowbeat.back_up($1, false) k

-- name: baseline
-- $1 backup · $2 how many rows. Null: it is complete.
select rowbeat.continue_baseline($1, $2) as read

-- name: newest
-- The number of the newest transaction, and which database this is.
select coalesce((select max(t.number) from rowbeat.backup_transaction t), 0) as number, rowbeat.fingerprint() as source

-- name: transaction
-- Which transaction a number is. $1 number
select t.xid::text as xid, t.at from rowbeat.backup_transaction t where t.number = $1

-- name: page
-- Images in the order of transactions, each as a document. $1 after this transaction · $2 or within it after this image · $3 how many
select t.number, i.id as image, not exists (select from rowbeat.backup_image n where n.transaction = t.id and n.id > i.id) as last,
    to_char(t.at at time zone 'UTC', 'YYYY-MM-DD') as day,
    jsonb_build_object('number', t.number, 'transaction', t.id, 'xid', t.xid::text, 'transaction_at', t.at, 'images', t.images, 'login_role', t.login_role,
        'image', i.id, 'source', s.id, 'backup', s.name, 'table_name', s.table_name, 'schema_name', s.schema_name, 'key', i.key, 'operation', i.operation,
        'row', i.row, 'at', i.at, 'actor', i.actor)::text as document
from rowbeat.backup_transaction t
join rowbeat.backup_image i on i.transaction = t.id
join rowbeat.backup_source s on s.id = i.source
where t.number >= $1 and (t.number > $1 or i.id > $2)
order by t.number, i.id limit $3

-- name: open_target
-- $1 which database the images come from
select rowbeat.open_target($1)

-- name: receive
-- $1 a list of documents of images
select rowbeat.receive_images($1::text::jsonb)

-- name: report_target
-- $1 name · $2 kind · $3 position or null · $4 error or null · $5 node
select rowbeat.report_target($1, $2, $3, $4, $5)

-- name: digest
-- $1 up to this transaction
select d.backup, d.images, d.digest from rowbeat.digest_images($1) d order by d.backup

-- name: sums
-- A sum of each image of a backup. $1 backup · $2 up to this transaction
select h.image, h.key::text as key, hashtextextended(concat_ws(' ', h.key, h.operation, h.row, h.actor), h.transaction) as sum
from rowbeat.backup_history h where h.backup = $1 and h.transaction <= $2 order by h.image

-- name: enable
-- $1 table · $2 name or null · $3 anew
select e as name, (select greatest(c.reltuples, 0)::bigint from pg_catalog.pg_class c where c.oid = $1::text::regclass) as rows
from rowbeat.enable_backup($1::text::regclass, $2, $3) e

-- name: disable
-- $1 name
select rowbeat.disable_backup($1)

-- name: list
select to_jsonb(b) as backup from rowbeat.backups b

-- name: list_targets
select to_jsonb(t) as target from rowbeat.backup_targets t

-- name: catch_up
select rowbeat.catch_up()

-- name: verify
-- $1 backup
select to_jsonb(v) as verified from rowbeat.verify_backup($1) v

-- name: sources
-- What there are images of. $1 their names, or null: all
select s.name from rowbeat.own_source s where $1::text[] is null or s.name = any ($1) order by s.name

-- name: images
-- The newest image of each key. $1 backup · $2 as of, or null · $3 deleted ones
select rowbeat.key_text(i.key) as key,
    (case when i.operation = 'DELETE' then jsonb_build_object('deleted_at', i.at, 'deleted_by', i.by_whom) || i.row else i.row end)::text as row
from rowbeat.own_source s cross join lateral rowbeat.images_at(s.id, $2) i
where s.name = $1 and (i.operation = 'DELETE') = $3

-- name: restore_order
-- $1 names of backups, or null: all whose table is there. circle: it refers to one that comes later.
with restored as materialized (select t.backup, t.table_name, row_number() over () as n from rowbeat.restore_tables($1) t)
select r.backup, exists (
    select from pg_catalog.pg_constraint c join restored l on l.table_name = c.confrelid and l.n > r.n where c.contype = 'f' and c.conrelid = r.table_name) as circle
from restored r order by r.n

-- name: document_order
-- $1 an empty document with the names of what is restored
select t.backup from rowbeat.restore_tables(null, $1::text::jsonb) t

-- name: restore
-- $1 backups · $2 as of, or null · $3 with deleted ones · $4 force · $5 document or null
select to_jsonb(r) as restored from rowbeat.restore($1, $2, $3, $4, $5::text::jsonb) r
