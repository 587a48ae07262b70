-- What is sold, to whom, and how it is paid and delivered. Times come from the triggers touch and fill_sale, so that whoever inserts needs no
-- right but that on the table.

create table hotspot.staff (
    id            uuid primary key default gen_random_uuid(),
    username      varchar(40) not null unique,
    email         varchar(254),
    phone_number  varchar(10),
    is_active     boolean not null default true,
    is_staff      boolean not null default true,
    created_by    uuid references hotspot.staff (id) on delete set null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    constraint staff_username_given check (username <> ''),
    constraint staff_phone_number_fits check (phone_number ~ '^[0-9]{10}$')
);
create index staff_created_by on hotspot.staff (created_by) where created_by is not null;
comment on table hotspot.staff is 'People who work here. Active ones hear of a low SMS balance and of sales that are not delivered.';
comment on column hotspot.staff.id is 'Its id.';
comment on column hotspot.staff.username is 'Name; an operator of that name acts as this person.';
comment on column hotspot.staff.email is 'Where mails go.';
comment on column hotspot.staff.phone_number is 'Where SMS go.';
comment on column hotspot.staff.is_active is 'Whether anything is sent to him.';
comment on column hotspot.staff.is_staff is 'Whether he may use the staff pages, for whoever gives out tokens.';
comment on column hotspot.staff.created_by is 'Who added him.';
comment on column hotspot.staff.created_at is 'When; it never moves.';
comment on column hotspot.staff.updated_at is 'Last change.';

create table hotspot.bundle (
    code            varchar(40) primary key,
    price           numeric(10, 2) not null generated always as (coalesce(substring(code from '^([0-9]{1,6}(?:\.[0-9]{1,2})?)_GHS__')::numeric, 0)) stored,
    data_label      text not null generated always as (substr(code, strpos(code, '_GHS__') + 6)) stored,
    router_profile  text,
    is_test         boolean not null default false,
    is_active       boolean not null default true,
    position        integer not null default 0,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint bundle_code_fits check (code ~ '^[0-9]{1,6}(\.[0-9]{1,2})?_GHS__.')
);
comment on table hotspot.bundle is 'What can be bought.';
comment on column hotspot.bundle.code is 'Price and data in one: <price>_GHS__<data>.';
comment on column hotspot.bundle.price is 'The number before _GHS__, in cedis.';
comment on column hotspot.bundle.data_label is 'What stands after it.';
comment on column hotspot.bundle.router_profile is 'Exact name of the router''s profile; null: the one whose price is the amount.';
comment on column hotspot.bundle.is_test is 'For tries: offered only while setting test_bundle names it.';
comment on column hotspot.bundle.is_active is 'Whether it is offered.';
comment on column hotspot.bundle.position is 'Order in the form.';
comment on column hotspot.bundle.created_at is 'When it was added; it never moves.';
comment on column hotspot.bundle.updated_at is 'Last change.';

insert into hotspot.bundle (code, position, created_at, updated_at)
select b.code, b.position, now(), now() from (values ('3_GHS__2GB_(24hrs)', 1), ('5_GHS__5GB_(24hrs)', 2), ('10_GHS__15GB_(3_days)', 3),
    ('15_GHS__20GB_(5_days)', 4), ('30_GHS__(Unlimited_24hrs)', 5)) b (code, position);

create table hotspot.checkout (
    token           uuid primary key default gen_random_uuid(),
    full_name       varchar(40) not null,
    phone_number    varchar(10) not null,
    bundle_code     varchar(40) not null references hotspot.bundle (code) on update cascade on delete cascade,
    otp_salt        text not null,
    otp_hash        text not null,
    otp_expires_at  timestamptz not null,
    tries           integer not null default 0,
    verified_at     timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint checkout_phone_number_fits check (phone_number ~ '^[0-9]{10}$')
);
create index checkout_created_at on hotspot.checkout (created_at);
create index checkout_bundle_code on hotspot.checkout (bundle_code);
comment on table hotspot.checkout is 'A customer''s visit, from the form to the code; kept for a day.';
comment on column hotspot.checkout.token is 'What his cookie holds.';
comment on column hotspot.checkout.full_name is 'His name.';
comment on column hotspot.checkout.phone_number is 'His number, ten digits.';
comment on column hotspot.checkout.bundle_code is 'What he wants.';
comment on column hotspot.checkout.otp_salt is 'Salt of the hash.';
comment on column hotspot.checkout.otp_hash is 'SHA-256 of salt and one-time code; the code itself is not kept.';
comment on column hotspot.checkout.otp_expires_at is 'Until when the code is taken.';
comment on column hotspot.checkout.tries is 'Wrong answers so far; after five the checkout is closed.';
comment on column hotspot.checkout.verified_at is 'When the right code came.';
comment on column hotspot.checkout.created_at is 'When it began; it never moves.';
comment on column hotspot.checkout.updated_at is 'Last change.';

create table hotspot.sale (
    id                     uuid primary key default gen_random_uuid(),
    full_name              varchar(40) not null,
    phone_number           varchar(10) not null,
    bundle_code            varchar(40) not null references hotspot.bundle (code) on update cascade,
    amount                 numeric(10, 2) not null,
    data_label             text not null,
    checkout_token         uuid unique,
    status                 text not null default 'requested',
    reference              uuid not null unique default gen_random_uuid(),
    external_id            uuid not null unique default gen_random_uuid(),
    mtn_transaction_id     varchar(40) unique,
    hotspot_username       varchar(15) not null,
    hotspot_password       varchar(15) not null,
    voucher_code           varchar(40),
    paid_at                timestamptz,
    delivered_at           timestamptz,
    payment_status         boolean not null generated always as (paid_at is not null) stored,
    voucher_code_received  boolean not null generated always as (delivered_at is not null) stored,
    last_error             text,
    created_by             uuid references hotspot.staff (id) on delete set null,
    refunded_at            timestamptz,
    refunded_amount        numeric(10, 2),
    refund_reason          text,
    refunded_by            text,
    refund_override        boolean,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    constraint sale_phone_number_fits check (phone_number ~ '^[0-9]{10}$'),
    constraint sale_status_known check (status in ('requested', 'pending', 'paid', 'delivered', 'failed', 'refunded')),
    constraint sale_paid check (status not in ('paid', 'delivered', 'refunded') or paid_at is not null),
    constraint sale_delivered check (status <> 'delivered' or delivered_at is not null),
    constraint sale_refunded check ((status = 'refunded') = (refunded_at is not null) and (refunded_at is null) = (refunded_amount is null))
);
create index sale_created_at on hotspot.sale (created_at, id);
create index sale_open on hotspot.sale (created_at) where status in ('requested', 'pending');
create index sale_undelivered on hotspot.sale (paid_at) where status = 'paid';
create index sale_hotspot_username on hotspot.sale (hotspot_username);
create index sale_refundable on hotspot.sale (created_at, id) where paid_at is not null and delivered_at is null and refunded_at is null;
create index sale_bundle_code on hotspot.sale (bundle_code);
create index sale_created_by on hotspot.sale (created_by) where created_by is not null;
comment on table hotspot.sale is 'One purchase, stored before money is asked for.';
comment on column hotspot.sale.id is 'Its id; also the unique key of its tasks.';
comment on column hotspot.sale.full_name is 'The customer.';
comment on column hotspot.sale.phone_number is 'His number, ten digits; also the one that pays.';
comment on column hotspot.sale.bundle_code is 'What he bought.';
comment on column hotspot.sale.amount is 'Its price when it was sold.';
comment on column hotspot.sale.data_label is 'Its data when it was sold.';
comment on column hotspot.sale.checkout_token is 'The visit in which it was bought.';
comment on column hotspot.sale.status is 'requested, pending (the gateway knows it), paid, delivered, failed or refunded.';
comment on column hotspot.sale.reference is 'The gateway''s X-Reference-Id: one for all attempts, so that nobody pays twice.';
comment on column hotspot.sale.external_id is 'Our number at the gateway.';
comment on column hotspot.sale.mtn_transaction_id is 'The gateway''s number of the payment.';
comment on column hotspot.sale.hotspot_username is 'The user that the customer gets.';
comment on column hotspot.sale.hotspot_password is 'Its password.';
comment on column hotspot.sale.voucher_code is 'Both, as he gets them; null until delivered.';
comment on column hotspot.sale.paid_at is 'When the money had come.';
comment on column hotspot.sale.delivered_at is 'When he could use it.';
comment on column hotspot.sale.payment_status is 'Whether it was paid.';
comment on column hotspot.sale.voucher_code_received is 'Whether it was delivered.';
comment on column hotspot.sale.last_error is 'Why it is not further yet.';
comment on column hotspot.sale.created_by is 'Who sold it; null: the customer bought it himself.';
comment on column hotspot.sale.refunded_at is 'When the payback was recorded.';
comment on column hotspot.sale.refunded_amount is 'How much.';
comment on column hotspot.sale.refund_reason is 'Why.';
comment on column hotspot.sale.refunded_by is 'By whom.';
comment on column hotspot.sale.refund_override is 'Whether it had been delivered, and that was confirmed.';
comment on column hotspot.sale.created_at is 'When it was sold; it never moves.';
comment on column hotspot.sale.updated_at is 'Last change.';

create table hotspot.voucher (
    id            uuid primary key default gen_random_uuid(),
    username      varchar(15) not null unique,
    password      varchar(15) not null unique,
    uptime_limit  varchar(150),
    bundle_code   varchar(40) references hotspot.bundle (code) on update cascade,
    claimed       boolean not null default false,
    claimed_at    timestamptz,
    sale_id       uuid unique references hotspot.sale (id) on delete set null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    constraint voucher_owned check (sale_id is null or claimed)
);
create index voucher_unclaimed on hotspot.voucher (bundle_code, created_at, id) where not claimed;
create index voucher_unclaimed_any on hotspot.voucher (created_at, id) where not claimed and bundle_code is null;
create index voucher_bundle_code on hotspot.voucher (bundle_code);
comment on table hotspot.voucher is 'The pool: users that were made in advance.';
comment on column hotspot.voucher.id is 'Its id.';
comment on column hotspot.voucher.username is 'The user.';
comment on column hotspot.voucher.password is 'Its password.';
comment on column hotspot.voucher.uptime_limit is 'How long it is good for, in the router''s words.';
comment on column hotspot.voucher.bundle_code is 'For which bundle; null: any.';
comment on column hotspot.voucher.claimed is 'Whether a sale has got it; it never goes back.';
comment on column hotspot.voucher.claimed_at is 'When.';
comment on column hotspot.voucher.sale_id is 'Which sale.';
comment on column hotspot.voucher.created_at is 'When it was loaded; it never moves.';
comment on column hotspot.voucher.updated_at is 'Last change.';

-- No foreign key: what is known of deliveries and SMS outlives sales that are lost, so that a recovered one is not served twice.
create table hotspot.delivery (
    sale_id      uuid primary key,
    task_id      bigint,
    attempt      integer,
    router_user  varchar(15),
    mailed_at    timestamptz
);
comment on table hotspot.delivery is 'How far the delivery of a paid sale is.';
comment on column hotspot.delivery.sale_id is 'The sale.';
comment on column hotspot.delivery.task_id is 'Its latest task.';
comment on column hotspot.delivery.attempt is 'The attempt of it that is at work; null: none is.';
comment on column hotspot.delivery.router_user is 'The user that the router may have; null: it never was asked for one, or no more has it.';
comment on column hotspot.delivery.mailed_at is 'When staff were told that it waits.';

create table hotspot.sms (
    id              uuid primary key default gen_random_uuid(),
    sale_id         uuid,
    checkout_token  uuid,
    kind            text not null,
    day             date,
    phone_number    varchar(10) not null,
    text            text,
    sent_at         timestamptz,
    attempts        integer not null default 0,
    last_error      text,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint sms_kind_known check (kind in ('otp', 'voucher', 'balance')),
    constraint sms_once unique (sale_id, kind)
);
create unique index sms_once_a_day on hotspot.sms (phone_number, day) where kind = 'balance';
create index sms_checkout_token on hotspot.sms (checkout_token) where checkout_token is not null;
comment on table hotspot.sms is 'Short messages, each sent once.';
comment on column hotspot.sms.id is 'Its id; also its idempotency key.';
comment on column hotspot.sms.sale_id is 'The sale that it tells of.';
comment on column hotspot.sms.checkout_token is 'The visit whose code it carries.';
comment on column hotspot.sms.kind is 'otp, voucher or balance.';
comment on column hotspot.sms.day is 'Of kind balance: the day, for there is one a day.';
comment on column hotspot.sms.phone_number is 'To whom.';
comment on column hotspot.sms.text is 'What it says; null: a one-time code that is not needed any more.';
comment on column hotspot.sms.sent_at is 'When the provider took it.';
comment on column hotspot.sms.attempts is 'Attempts that ended.';
comment on column hotspot.sms.last_error is 'Why the last one failed.';
comment on column hotspot.sms.created_at is 'When it was written; it never moves.';
comment on column hotspot.sms.updated_at is 'Last change.';
