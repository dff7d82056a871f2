-- Admits a new question.

-- `fields`, `context` and `quota` are JSON: the fields of the question, the lines of its context, and what the person
-- and the server may use in a day, with an `estimate` of the tokens that the turn needs.
function verbs.admit(id, thread, person, fields, thread_limit, person_limit, total_limit, context, quota)
  local known = redis.call('HMGET', key('turn', id), 'state', 'thread', 'place', 'asked_at')
  fields = decoded(fields)
  if known[1] then
    -- It may be the same call, sent again because its answer was lost.
    local same = known[2] == thread and known[3] == fields.place and known[4] == fields.asked_at
    return known[1] ~= 'dropped' and same and 'admitted' or 'duplicate'
  end
  if redis.call('EXISTS', key('answered', id)) == 1 then return 'duplicate' end
  -- A refused person has spoken, but the thread does not become the bot's.
  if redis.call('EXISTS', key('speakers', thread)) == 1 then note_speaker(thread, id_of(person)) end
  if is_thread_full(thread, person, fields.joins, thread_limit) then return 'thread' end
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  if full == '' then full = quota_refusal(person, thread, quota, 1, natural(quota.estimate)) end
  if full ~= '' then return full end

  store_turn(id, thread, person, fields, quota)
  store_context(id, thread, context)
  return 'admitted'
end

function verbs.check_room(thread, person, person_limit, total_limit, quota)
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  return full ~= '' and full or quota_refusal(person, thread, quota, 1, natural(quota.estimate))
end
