-- What programs call: two endpoints in JSON, and the commands.

create or replace function invoice.api_create(request jsonb) returns jsonb language sql volatile as $$
    select jsonb_build_object('status', 201, 'body', jsonb_build_object('id', invoice.create_invoice(
        request #>> '{input,customer_name}', request #>> '{input,customer_email}', request #> '{input,lines}', request #> '{input,received}')))
$$;
comment on function invoice.api_create(jsonb) is 'POST /api/invoices/';

create or replace function invoice.api_show(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_invoice  invoice.invoice;
begin
    select * into v_invoice from invoice.invoice i where i.id = invoice.path_id(request);
    if not found then
        perform invoice.refuse('RP404', format('Invoice %s does not exist.', request #>> '{input,id}'));
    end if;
    return jsonb_build_object('body', invoice.invoice_document(v_invoice));
end $$;
comment on function invoice.api_show(jsonb) is 'GET /api/invoices/<id>/';

create or replace function invoice.seed_command(arguments jsonb) returns setof text language sql volatile as $$
    select format('Denominations added: %s', invoice.seed_denominations())
$$;
comment on function invoice.seed_command(jsonb) is 'rowbeat app invoice seed-denominations';

create or replace function invoice.requeue_command(arguments jsonb) returns setof text language sql volatile as $$
    select format('Emails enqueued: %s', invoice.requeue_emails('{}') ->> 'enqueued')
$$;
comment on function invoice.requeue_command(jsonb) is 'rowbeat app invoice requeue-emails';

create or replace function invoice.resend_command(arguments jsonb) returns setof text language sql volatile as $$
    select coalesce(format('Email enqueued as task %s', invoice.resend_email((arguments ->> 'invoice')::bigint, (arguments ->> 'confirmed')::boolean)),
        'The email could not be queued; it will be tried again in a few minutes.')
$$;
comment on function invoice.resend_command(jsonb) is 'rowbeat app invoice resend-email';
