-- Admits a new question.

-- `fields` is JSON, with the fields of the question. `context` is JSON, too, or '' if the question replies to nothing. So is `quota`: what the person and the server may use
-- in a day, and an `estimate` of the tokens that the turn needs.
function verbs.admit(id, thread, person, fields, thread_limit, person_limit, total_limit, context, quota)
  local known = redis.call('HMGET', key('turn', id), 'state', 'thread', 'body', 'asked_at')
  if known[1] then
    -- It may be the same call, sent again because its answer was lost.
    fields = decoded(fields)
    local same = known[2] == thread and known[3] == fields.body and known[4] == fields.asked_at
    return known[1] ~= 'dropped' and same and 'admitted' or 'duplicate'
  end
  if redis.call('EXISTS', key('answered', id)) == 1 then return 'duplicate' end
  -- A refused person has spoken, but the thread does not become the bot's.
  if redis.call('EXISTS', key('speakers', thread)) == 1 then note_speaker(thread, id_of(person)) end
  fields = decoded(fields)
  local joins = fields.joins
  if is_thread_full(thread, person, joins, thread_limit) then return 'thread' end
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota or '')
  if full == '' then full = quota_refusal(person, thread, quota, 1, natural(quota.estimate)) end
  if full ~= '' then return full end

  store_turn(id, thread, person, fields, quota)
  if context and context ~= '' then
    context = without_forgotten(context, thread)
    redis.call('HSET', key('turn', id), 'context', context)
    note_context_messages(thread, decoded(context))
  end
  return 'admitted'
end

function verbs.check_room(person, thread, person_limit, total_limit, quota)
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  return full ~= '' and full or quota_refusal(person, thread, quota, 1, natural(quota.estimate))
end
