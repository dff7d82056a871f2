-- The calls of tools that a turn makes, and the consent to them.
--
-- `steps:<id>` has the journal of a turn: texts by name, of which this script knows `asked:CALL` and `consent:CALL`.
-- CALL may be a question of the call's server, too, whose id begins with what it asks for.
-- `effects:<id>` has each effect that the question has begun, whatever became of its steps: a digest and the tool's name.

-- Notes in the record, for screens that are opened later, for which call a person is asked, and in which words.
local function note_asked(id, call)
  local asked = redis.call('HGET', key('steps', id), 'asked:' .. call) or ''
  set(id, 'asks', call .. ' ' .. (string.match(asked, '\n([^\n]*)') or ''))
end

-- Saves a text of the journal before what it says is done. After a stop or an edit nothing more begins, so nothing is
-- saved. `effect` is '' for a text that begins none. With a `limit` it is one of the person's calls of the day.
function verbs.save_step(id, fence, name, text, effect, limit, used, bill)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  local request = request_to(id)
  if request ~= '' then return request end
  -- A command that is sent again counts once.
  local is_new = redis.call('HEXISTS', key('steps', id), name) == 0
  local refused = limit ~= '' and is_new and count_call(turn.person, limit) or ''
  if refused ~= '' then return refused end
  redis.call('HSET', key('steps', id), name, text)
  set_used(id, used, bill)
  -- An attempt that gets further than all before it counts as the first again, as in `save`.
  if is_new then set(id, 'attempts', 1) end
  if effect ~= '' then redis.call('SADD', key('effects', id), effect) end
  local call = string.match(name, '^asked:(.+)')
  if call then note_asked(id, call) end
  keep_in(turn.thread, key('steps', id), key('effects', id))
  return ''
end

-- Gives a turn back until a person has answered for a call, or for `delay` ms; at once if they have.
function verbs.suspend(id, fence, call, delay, used, bill)
  local turn = record(id)
  if turn.fence == fence and turn.state == 'queued' then return 'ok' end
  if not holds(turn, fence) then return 'lost' end
  if request_to(id) ~= '' or redis.call('HEXISTS', key('steps', id), 'consent:' .. call) == 1 then
    delay = 0
  else
    note_asked(id, call)
  end
  return verbs.release(id, fence, delay, '', used, bill)
end

-- Nobody has answered in time. Returns the answer that counts: one may have come meanwhile.
function verbs.close_consent(id, fence, call, consent)
  if not holds(record(id), fence) then return 'lost' end
  redis.call('HSETNX', key('steps', id), 'consent:' .. call, consent)
  return redis.call('HGET', key('steps', id), 'consent:' .. call)
end

-- Notes that a person allows a tool for always. `asked` is what they were asked: the time, the digest of the tool as it
-- was described then, and its name.
local function allow_always(person, asked)
  local digest, name = string.match(asked, '^%S+ (%S+) ([^\n]+)')
  if not digest or is_being_forgotten(platform_of(person), id_of(person)) then return end
  redis.call('HSET', key('allowed', person), name, digest)
end

-- What answers the question of a server, beside 'deny'.
local ANSWERS = {form = 'answer', link = 'done'}

-- Stores what a person has answered, and wakes the turn. Only the asker may answer, or an admin, who allows nothing for
-- always, and says nothing to a server. Returns 0 if nothing waits for it any more.
function verbs.decide(id, call, person, consent, is_admin, words)
  local turn, steps = record(id), key('steps', id)
  local asked = redis.call('HGET', steps, 'asked:' .. call)
  local wanted = ANSWERS[string.match(call, '^(%l+)-') or '']
  if not is_open(turn) or not asked or request_to(id) ~= '' then return 0 end
  if consent ~= 'deny' and consent ~= (wanted or (consent == 'always' and consent or 'allow')) then return 0 end
  if get(id, 'asker') ~= person and (is_admin == '' or (wanted and consent ~= 'deny')) then return 'asker' end
  local answer = words ~= '' and consent .. '\n' .. words or consent
  if redis.call('HSETNX', steps, 'consent:' .. call, answer) == 0 then return 0 end
  if consent == 'always' and get(id, 'asker') == person then allow_always(turn.person, asked) end
  wake_asking(id)
  return 1
end
