-- The mail of an invoice: enqueued, planned, settled, repaired. What settles a task holds the task and then locks the invoice; so does everything here.

-- Promises: the mail is on its way, or why it is not; an error of the queue never reaches the caller. A task that waits is due at once.
--   One that is to send what was sent already is a task of its own: the one that has just sent it may not have ended yet.
-- Called by: create_invoice, resend_email. Locks: the task; it runs in a savepoint.
create or replace function invoice.enqueue_email(p_invoice_id bigint, p_again boolean, out task_id bigint, out problem text) language plpgsql volatile as $$
begin
    task_id := rowbeat.enqueue('invoice.send_email', jsonb_build_object('invoice_id', p_invoice_id) || case when p_again then '{"again": true}' else '{}'::jsonb end,
        p_unique_key => p_invoice_id || case when p_again then ' again' else '' end, p_replace => '{run_at}');
exception when others then
    task_id := null;
    problem := 'Queue error: ' || left(sqlerrm, 1000);
end $$;
comment on function invoice.enqueue_email(bigint, boolean) is 'Enqueues the mail of an invoice, or tells what is wrong with the queue.';

-- The mail as plain text; null when there is no such invoice.
create or replace function invoice.email_body(p_invoice_id bigint) returns text language sql stable as $$
    select concat_ws(E'\n',
        'Invoice No: ' || i.id, 'Customer Name: ' || i.customer_name, 'Customer Email: ' || i.customer_email, '',
        'Purchased Items:',
        (select string_agg(format('- %s (%s) | Qty: %s | Unit: %s | Tax: %s | Total: %s',
            l.product_name, l.product_code, l.quantity, l.unit_price, l.line_tax, l.line_total), E'\n' order by l.id)
            from invoice.invoice_item l where l.invoice_id = i.id), '',
        'Gross Amount: ' || i.gross_amount, 'Tax Amount: ' || i.tax_amount, 'Net Amount: ' || i.net_amount,
        'Rounded Payable: ' || i.rounded_payable, 'Paid Amount: ' || i.paid_amount, 'Balance Amount: ' || i.balance_amount, '',
        'Thank you for your purchase.')
    from invoice.invoice i where i.id = p_invoice_id
$$;
comment on function invoice.email_body(bigint) is 'The mail of an invoice as plain text.';

-- An invoice as pages, templates and the API show it; money as texts with two decimals.
create or replace function invoice.invoice_document(p_invoice invoice.invoice) returns jsonb language sql stable as $$
    select jsonb_build_object('id', p_invoice.id, 'customer_name', p_invoice.customer_name, 'customer_email', p_invoice.customer_email,
        'gross_amount', p_invoice.gross_amount::text, 'tax_amount', p_invoice.tax_amount::text, 'net_amount', p_invoice.net_amount::text,
        'rounded_payable', p_invoice.rounded_payable::text, 'paid_amount', p_invoice.paid_amount::text, 'balance_amount', p_invoice.balance_amount::text,
        'received_denoms', p_invoice.received_denoms, 'change_denoms', p_invoice.change_denoms,
        'email_sent', p_invoice.email_sent, 'email_fail_count', p_invoice.email_fail_count, 'email_last_error', p_invoice.email_last_error,
        'created_at', to_char(p_invoice.created_at at time zone invoice.zone(), 'YYYY-MM-DD HH24:MI'),
        'items', (select coalesce(jsonb_agg(jsonb_build_object('product_id', l.product_id, 'name', l.product_name, 'code', l.product_code,
            'quantity', l.quantity, 'unit_price', l.unit_price::text, 'tax_percent', l.tax_percent::text, 'line_subtotal', l.line_subtotal::text,
            'line_tax', l.line_tax::text, 'line_total', l.line_total::text) order by l.id), '[]')
            from invoice.invoice_item l where l.invoice_id = p_invoice.id))
$$;
comment on function invoice.invoice_document(invoice.invoice) is 'An invoice as JSON.';

-- The next effect for a claimed invoice: the PDF, if a program is set that makes it, then the mail. The Message-ID is the same for ever; the time of the
-- invoice is in it, for other shops have invoices of the same number.
create or replace function invoice.email_effect(p_invoice invoice.invoice, p_responses jsonb[]) returns jsonb language plpgsql stable as $$
declare
    v_pdf      text := nullif(trim(rowbeat.read_setting('invoice', 'pdf_connection')), '');
    v_made     text := (select r ->> 'base64' from unnest(p_responses) r where r ? 'base64' limit 1);
    v_parts    jsonb := jsonb_build_object('data', invoice.invoice_document(p_invoice), 'template', jsonb_build_object('html',
        (select convert_from(f.content, 'UTF8') from rowbeat.own_file f where f.plugin = 'invoice' and f.path = 'templates/mail.html')));
begin
    if v_pdf is not null and v_made is null then
        return v_parts || jsonb_build_object('executor', 'exec', 'program', v_pdf, 'output', 'base64');
    end if;
    return v_parts || jsonb_build_object('connection', rowbeat.read_setting('invoice', 'mail_connection'), 'to', p_invoice.customer_email,
        'subject', format('Invoice #%s', p_invoice.id), 'text', invoice.email_body(p_invoice.id),
        'message_id', format('<invoice-%s-%s@invoice.rowbeat>', p_invoice.id, (extract(epoch from p_invoice.created_at) * 1000000)::bigint),
        'attachments', case when v_made is null then '[]' else jsonb_build_array(jsonb_build_object(
            'name', format('invoice-%s.pdf', p_invoice.id), 'content_type', 'application/pdf', 'base64', v_made)) end);
end $$;
comment on function invoice.email_effect(invoice.invoice, jsonb[]) is 'The next effect of an invoice''s mail.';

-- Promises: a mail for an invoice that is there, not mailed yet (or to be mailed again) and not being mailed by another task: it is claimed by this
--   one from now on. Once an attempt at a repetition has failed, the invoice counts as not mailed, and the task is like any other.
--   Locks: the invoice, when it is claimed; what is put off or cancelled ends its task in the same transaction and holds no invoice.
create or replace function invoice.plan_email(task jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_id       bigint := (task #>> '{payload,invoice_id}')::bigint;
    v_task     bigint := (task ->> 'id')::bigint;
    v_again    boolean := coalesce((task #>> '{payload,again}')::boolean, false) and (task ->> 'failures')::integer = 0;
    v_invoice  invoice.invoice;
begin
    if exists (select from unnest(responses) r where r ? 'message_id') then
        return null;
    end if;
    update invoice.invoice i set email_claim = v_task
    where i.id = v_id and (v_again or not i.email_sent) and (i.email_claim is null or i.email_claim = v_task
        or not exists (select from rowbeat.own_task t where t.id = i.email_claim and t.finished_at is null))
    returning i.* into v_invoice;
    if found then
        return invoice.email_effect(v_invoice, responses);
    end if;
    select * into v_invoice from invoice.invoice i where i.id = v_id;
    return case when not found then '{"cancel": "invoice deleted"}'::jsonb when v_again or not v_invoice.email_sent then '{"snooze": 10}'::jsonb end;
end $$;
comment on function invoice.plan_email(jsonb, jsonb[]) is 'Plans the mail of an invoice.';

-- Promises: what became of the attempt is on the invoice, and the claim is gone. Locks: the invoice, after the task.
create or replace function invoice.settle_email(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_id    bigint := case when invoice.is_whole(task #>> '{payload,invoice_id}') then (task #>> '{payload,invoice_id}')::numeric end;
    v_task  bigint := (task ->> 'id')::bigint;
    v_sent  boolean := outcome ->> 'outcome' = 'done' and exists (select from unnest(responses) r where r ? 'message_id');
begin
    if v_sent then
        update invoice.invoice i set email_sent = true, email_last_error = '', email_claim = null where i.id = v_id;
    elsif outcome ->> 'outcome' not in ('done', 'cancelled') then
        update invoice.invoice i set email_sent = false, email_fail_count = i.email_fail_count + 1, email_claim = nullif(i.email_claim, v_task),
            email_last_error = left(coalesce(outcome #>> '{error,message}', outcome ->> 'outcome'), 1000)
        where i.id = v_id and (not i.email_sent or i.email_claim = v_task);
        return jsonb_build_object('retry_after', rowbeat.read_setting('invoice', 'email_retry_delay')::integer);
    else
        update invoice.invoice i set email_claim = null where i.id = v_id and i.email_claim = v_task;
    end if;
    return jsonb_build_object('status', case when v_sent then 'sent' else 'not sent' end, 'invoice_id', v_id);
end $$;
comment on function invoice.settle_email(jsonb, jsonb, jsonb[]) is 'Records what became of an attempt at a mail.';

-- Promises: invoices whose mail could not be queued have a task now. Safe to repeat. Called by: the schedule, every five minutes.
create or replace function invoice.requeue_emails(payload jsonb) returns jsonb language sql volatile as $$
    with queued as materialized (
        select i.id, rowbeat.enqueue('invoice.send_email', jsonb_build_object('invoice_id', i.id), p_unique_key => i.id::text) as task_id
        from invoice.invoice i
        where not i.email_sent and i.email_last_error like 'Queue error:%'
            and not exists (select from rowbeat.own_task t where t.id = i.email_task and t.finished_at is null)
    ), noted as (
        update invoice.invoice i set email_task = q.task_id from queued q where i.id = q.id returning 1
    )
    select jsonb_build_object('enqueued', count(*)) from noted
$$;
comment on function invoice.requeue_emails(jsonb) is 'Enqueues mails that could not be queued before.';

-- Promises: the invoice's mail is on its way once more. Returns its task; null: the queue is out of order, and the invoice says why.
-- Locks: the task, then the invoice. SQLSTATEs: RP404, RP409 (sent already, and nobody said to send it again).
create or replace function invoice.resend_email(p_invoice_id bigint, p_confirmed boolean default false) returns bigint language plpgsql volatile as $$
declare
    v_invoice  invoice.invoice;
    v_queued   record;
begin
    select * into v_invoice from invoice.invoice i where i.id = p_invoice_id;
    if not found then
        perform invoice.refuse('RP404', format('Invoice %s does not exist.', p_invoice_id));
    elsif v_invoice.email_sent and not coalesce(p_confirmed, false) then
        perform invoice.refuse('RP409', 'Email was already sent.');
    end if;
    select * into v_queued from invoice.enqueue_email(p_invoice_id, v_invoice.email_sent);
    update invoice.invoice i set email_sent = i.email_sent and v_queued.problem is null, email_task = coalesce(v_queued.task_id, i.email_task),
        email_fail_count = i.email_fail_count + case when v_queued.problem is null then 0 else 1 end,
        email_last_error = coalesce(v_queued.problem, i.email_last_error)
    where i.id = p_invoice_id;
    return v_queued.task_id;
end $$;
comment on function invoice.resend_email(bigint, boolean) is 'Enqueues the mail of an invoice again.';
