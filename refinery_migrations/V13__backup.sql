-- Backups: whose every committed change is kept, and the images.
--
-- A backup is a row that names a table, as a watch is; its images stand under a source, which outlives the backup, the table and its
-- name. Images are what the change log held, row by row, for as long as the operator wants; they are never changed. A transaction
-- has a number once all of it has been read; numbers follow the order of commits as far as one transaction can depend on another. The
-- hash of a key stands for it in the index: keys may be longer than an index takes. Locks: new tables only; plugin_part for a moment.

alter table rowbeat.plugin_part
    drop constraint plugin_part_kind_known,
    add constraint plugin_part_kind_known check (kind in ('task', 'schedule', 'watch', 'channel', 'feature', 'consumer', 'backup'));
comment on column rowbeat.plugin_part.kind is 'task (a row of task_definition), schedule, watch, channel, feature, consumer (of change_consumer) or backup.';

create table rowbeat.backup_source (
    id           integer generated always as identity primary key,
    name         text not null unique,
    table_name   text not null,
    schema_name  name not null
);
comment on table rowbeat.backup_source is 'What images are of; stays when a backup or a table is gone.';
comment on column rowbeat.backup_source.id is 'What images say.';
comment on column rowbeat.backup_source.name is 'Name of the backup.';
comment on column rowbeat.backup_source.table_name is 'The table''s name, with its schema, when the backup was written last.';
comment on column rowbeat.backup_source.schema_name is 'Its schema: a plugin sees the images of its own.';

create table rowbeat.backup (
    name           text primary key,
    table_name     regclass not null unique,
    enabled        boolean not null default true,
    source         integer not null references rowbeat.backup_source (id),
    columns        text[] not null default '{}',
    baseline_key   jsonb,
    baselined_at   timestamptz,
    broken         text,
    broken_at      timestamptz,
    created_at     timestamptz not null default now()
);
comment on table rowbeat.backup is 'Tables whose every committed change is kept. Inserting the row installs the capture triggers; the daemon then takes the baseline.';
comment on column rowbeat.backup.name is 'Name of the backup; the table''s when left out.';
comment on column rowbeat.backup.table_name is 'The table.';
comment on column rowbeat.backup.enabled is 'False: changes are not kept; the images stay.';
comment on column rowbeat.backup.source is 'What its images stand under.';
comment on column rowbeat.backup.columns is 'The table''s columns when the baseline began.';
comment on column rowbeat.backup.baseline_key is 'While the baseline is taken: the last key that was read.';
comment on column rowbeat.backup.baselined_at is 'Since when every row is in the backup; null: the baseline is being taken.';
comment on column rowbeat.backup.broken is 'What the backup misses; a new baseline ends it.';
comment on column rowbeat.backup.broken_at is 'Since when.';
comment on column rowbeat.backup.created_at is 'When it was written.';

create sequence rowbeat.backup_number;

create table rowbeat.backup_transaction (
    id          bigint generated always as identity primary key,
    number      bigint unique,
    xid         xid8 not null,
    last_seq    bigint not null,
    at          timestamptz not null,
    images      bigint not null,
    login_role  text not null
);
create unique index backup_transaction_open on rowbeat.backup_transaction (xid) where number is null;
comment on table rowbeat.backup_transaction is 'Transactions that changed tables with a backup, and the pieces of baselines.';
comment on column rowbeat.backup_transaction.id is 'What images say.';
comment on column rowbeat.backup_transaction.number is 'Place in the order of commits; null: it has not been read to its end.';
comment on column rowbeat.backup_transaction.xid is 'The transaction.';
comment on column rowbeat.backup_transaction.last_seq is 'Number of its last change in the log; 0 for a baseline.';
comment on column rowbeat.backup_transaction.at is 'When it wrote last: as of this time all of it counts, before nothing.';
comment on column rowbeat.backup_transaction.images is 'How many images it has.';
comment on column rowbeat.backup_transaction.login_role is 'Who had logged in.';

create table rowbeat.backup_image (
    id           bigint generated always as identity,
    source       integer not null,
    key          jsonb not null,
    key_hash     bigint not null generated always as (jsonb_hash_extended(key, 0)) stored,
    operation    text not null,
    row          jsonb,
    transaction  bigint not null,
    at           timestamptz not null,
    actor        text,
    primary key (source, key_hash, id)
);
create index backup_image_transaction on rowbeat.backup_image (transaction, id);
comment on table rowbeat.backup_image is 'What rows were: one image per change. Never changed, and not bound to the change log''s days.';
comment on column rowbeat.backup_image.id is 'In order of writing.';
comment on column rowbeat.backup_image.source is 'Of which table.';
comment on column rowbeat.backup_image.key is 'Primary key of the row; empty for TRUNCATE.';
comment on column rowbeat.backup_image.key_hash is 'Its hash, for the index.';
comment on column rowbeat.backup_image.operation is 'INSERT, UPDATE, DELETE; BASELINE; RESTORE (a restore gave it an older content); TRUNCATE (a loss: it takes no image back).';
comment on column rowbeat.backup_image.row is 'The row after it, of a DELETE before it.';
comment on column rowbeat.backup_image.transaction is 'Its transaction.';
comment on column rowbeat.backup_image.at is 'When it was written.';
comment on column rowbeat.backup_image.actor is 'Who did it, as the application''s setting rowbeat.actor said.';

create table rowbeat.backup_target (
    name        text primary key,
    kind        text not null,
    position    bigint not null default 0,
    written_at  timestamptz,
    error       text,
    error_at    timestamptz,
    node        text not null
);
comment on table rowbeat.backup_target is 'Further places that images are written to, as the daemons that serve them report.';
comment on column rowbeat.backup_target.name is 'Name of the target in the configuration.';
comment on column rowbeat.backup_target.kind is 'database or file.';
comment on column rowbeat.backup_target.position is 'Number of the last transaction in it. Only a report: the target has its own.';
comment on column rowbeat.backup_target.written_at is 'When it was reported.';
comment on column rowbeat.backup_target.error is 'What it fails with at the moment.';
comment on column rowbeat.backup_target.error_at is 'Since when.';
comment on column rowbeat.backup_target.node is 'The node that serves it.';
