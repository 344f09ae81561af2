// An app as people write them: the `openid-client` library behind a small web site. What the library accepts, it has
// verified: state, nonce, PKCE, `iss` of the answer (RFC 9207), and the ID token with its signature.

import * as oidc from 'openid-client';
import { escape, hiddenFields, html, redirect } from './support.mjs';

/** Discovers `issuer` as `clientId`, authenticating by `authentication` of openid-client. */
export async function discover(issuer, clientId, authentication, options = {}) {
  const execute = [oidc.enableNonRepudiationChecks];
  if (issuer.startsWith('http:')) execute.push(oidc.allowInsecureRequests);
  return oidc.discovery(new URL(issuer), clientId, undefined, authentication, { execute, ...options });
}

/** A new authorization request, and what its answer will be checked against. */
export async function authorizationRequest(config, parameters) {
  const checks = {
    pkceCodeVerifier: oidc.randomPKCECodeVerifier(),
    expectedState: oidc.randomState(),
    expectedNonce: oidc.randomNonce(),
    idTokenExpected: true,
  };
  const url = oidc.buildAuthorizationUrl(config, {
    scope: 'openid profile email',
    code_challenge: await oidc.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
    code_challenge_method: 'S256',
    state: checks.expectedState,
    nonce: checks.expectedNonce,
    ...parameters,
  });
  return { url, checks };
}

/**
 * The web site of an app. It finds a sign-in by its state and not by a cookie: a cross-site POST brings none of its
 * own either. What it received last is in `arrival`, whom it knows in `tokens`.
 */
export class App {
  /** `host` decides whether the app is the same site as the provider on `localhost`. */
  static async open(stage, host) {
    const app = new App();
    app.origin = await stage.site(host, request => app.#respond(request));
    app.redirectUri = `${app.origin}/callback`;
    app.signedOutUri = `${app.origin}/signed-out`;
    return app;
  }

  #attempts = new Map();

  /** As the provider has to know it. */
  registration(clientId, more = {}) {
    return {
      client_id: clientId,
      client_secret: `the secret of ${clientId}`,
      client_name: 'Study Planner',
      redirect_uris: [this.redirectUri],
      post_logout_redirect_uris: [this.signedOutUri],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access',
      ...more,
    };
  }

  async connect(issuer, { client_id, client_secret }, options) {
    this.config = await discover(issuer, client_id, oidc.ClientSecretBasic(client_secret), options);
  }

  /** Where the app sends a browser to sign in; `parameters` go into the authorization request. */
  signInUrl(parameters = {}) {
    return `${this.origin}/sign-in?${new URLSearchParams(parameters)}`;
  }

  async #respond(request) {
    switch (request.path) {
      case '/': return this.#home();
      case '/sign-in': return this.#signIn(Object.fromEntries(request.url.searchParams));
      case '/callback': return this.#callback(request);
      case '/sign-out': return this.#signOut(request.url.searchParams.get('via'));
      case '/signed-out': return html('Signed out', `<h1 id="signed-out">Signed out</h1><p id="state">${escape(request.url.searchParams.get('state'))}</p>`);
      default: return { status: 404, body: html('Nothing', '') };
    }
  }

  #home() {
    return html('App', `
      <p><a id="sign-in" href="/sign-in">Sign in</a></p>
      <p><a id="sign-in-by-post" href="/sign-in?via=post">Sign in with a form</a></p>
      <p><a id="sign-out" href="/sign-out">Sign out</a></p>
      <p><a id="sign-out-by-post" href="/sign-out?via=post">Sign out with a form</a></p>`);
  }

  async #signIn({ via, ...parameters }) {
    const { url, checks } = await authorizationRequest(this.config, { redirect_uri: this.redirectUri, ...parameters });
    this.#attempts.set(checks.expectedState, checks);
    return navigation(url, via);
  }

  async #callback({ method, url, body }) {
    const answer = method === 'POST' ? body : url.searchParams;
    if (!answer.has('state')) {
      // A browser keeps the fragment to itself; a script of the app has to hand it in.
      return html('Fragment', `<script>if (location.hash) location.replace('/callback?by=fragment&' + location.hash.slice(1))</script>`);
    }
    this.arrival = { method, by: answer.get('by') ?? (method === 'POST' ? 'form' : 'query'), answer };
    const checks = this.#attempts.get(answer.get('state'));
    this.#attempts.delete(answer.get('state'));
    const current = new URL(this.redirectUri);
    answer.delete('by');
    current.search = answer;
    try {
      this.tokens = await oidc.authorizationCodeGrant(this.config, current, checks);
    } catch (error) {
      return html('Not signed in', `<h1 id="error">${escape(error.error ?? error.stack)}</h1><p>${escape(error.error_description)}</p>`);
    }
    const { sub } = this.tokens.claims();
    const person = await oidc.fetchUserInfo(this.config, this.tokens.access_token, sub);
    return html('Signed in', `<h1 id="name">${escape(person.name)}</h1><a id="sign-out" href="/sign-out">Sign out</a>
      <a id="sign-out-by-post" href="/sign-out?via=post">Sign out with a form</a>`);
  }

  #signOut(via) {
    this.signOutState = oidc.randomState();
    const url = oidc.buildEndSessionUrl(this.config, {
      post_logout_redirect_uri: this.signedOutUri,
      id_token_hint: this.tokens.id_token,
      state: this.signOutState,
    });
    return navigation(url, via);
  }
}

/** Sends the browser to `url`, or has it post the same parameters there. */
function navigation(url, via) {
  if (via !== 'post') return redirect(url.href);
  const action = new URL(url);
  action.search = '';
  return html('Continue', `<form method="post" action="${escape(action)}">${hiddenFields(url.searchParams)}<button id="post">Continue</button></form>`);
}
